"""People: personas, memories, embeddings and the forms that agents fill in. No I/O happens here."""
