"""QuintFeatures: images of five features, rendered, and the datasets declared of them."""
