"""Make networks smaller: score filters, take the least out, train what is left."""
