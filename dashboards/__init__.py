"""Grafana dashboards as code: ``python -m dashboards.generate`` writes the JSON files and the ConfigMaps of metrics-stack.yaml."""
