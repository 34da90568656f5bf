"""How much a model loses on scans that are altered as scanners alter them."""
