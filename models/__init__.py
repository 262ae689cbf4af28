"""Scripts that build small models, beside the models that they built. Nothing here is part of the engine."""
