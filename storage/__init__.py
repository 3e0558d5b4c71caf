"""Ground: tables, migrations, the one writer, readers and exports. Knows nothing of models."""
