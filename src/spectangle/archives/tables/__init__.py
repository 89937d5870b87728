"""Files of archives as tables: whatever their form, read, their columns found, their bad rows counted."""
