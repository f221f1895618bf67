"""The networks: DenseNet and DPN, one builder a family, and the catalogue of their variants."""
