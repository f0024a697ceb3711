"""Key providers: what wraps the data keys. One interface, one module a provider."""
