"""The accelerator hours of namespaces."""
