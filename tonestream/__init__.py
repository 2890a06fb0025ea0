"""The public Python interface of Tonestream. Everything else may change without notice."""
