"""ShareGPTVideo and other people's data: inventory, download, safe extraction, validation, conversion."""
