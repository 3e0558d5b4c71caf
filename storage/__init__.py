"""Persistence: tables, migrations, the writer, readers and search. Imports no other package."""
