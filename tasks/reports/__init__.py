"""Reading the views of schema ``report`` and showing them as a table, CSV, JSON, a workbook or a page."""
