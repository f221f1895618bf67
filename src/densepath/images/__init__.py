"""From a name to uint8 pixels: find, download, decode, fit by Preprocess."""
