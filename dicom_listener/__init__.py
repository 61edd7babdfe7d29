"""The C-STORE port: takes images from a PACS, keeps them as they came, and says when a study is complete."""
