"""Running both sides in step and recording what they compute."""
