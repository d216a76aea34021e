"""What several tests share. `helpers` is importable because pyproject.toml adds tests/ to pytest's path."""
