"""Everything a report shows, as text, tables and pages."""
