"""REST: the image routes, KServe's V1, the Open Inference Protocol V2, and the page."""
