"""The outside where clips are born: fal.media."""
