"""Exporters to other monitoring systems; each module needs the extra that it names."""
