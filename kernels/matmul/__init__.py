"""Products of activations with stored weights, one file per engine's rule."""
