"""What stages keep of a corpus or have learned: indexes and models, their places and manifests."""
