"""Where the settings come from: flags > environment > YAML file > defaults, each value with its origin."""
