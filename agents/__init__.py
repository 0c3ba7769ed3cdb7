"""Ready-made steps: agents and their capabilities, for JSON workflows, for Python ones, and alone."""
