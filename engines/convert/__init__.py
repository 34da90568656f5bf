"""DICOM at the border: series in, volumes out."""
