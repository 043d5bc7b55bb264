"""Datasets that are tables: Parquet and Arrow."""
