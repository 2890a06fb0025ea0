"""What people do with many results: rows, filters, formats, words for genres. Imported by the command line and the
gateway."""
