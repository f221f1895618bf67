"""Caffe's `.caffemodel` files: their layers and blobs, and the graph that they make."""
