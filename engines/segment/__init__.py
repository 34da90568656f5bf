"""From a scan to a label map in the scan's own grid."""
