"""ShareGPTVideo and other people's data: what there is, download, safe extraction, validation, conversion."""
