"""From what suites left in a folder to a page, its pictures, and the same numbers for programs."""

from anchor_jax.reporting.html import SECTIONS, write_report

__all__ = ["SECTIONS", "write_report"]
