"""Containers on a Docker Engine, one for each attempt. Needs the extra `docker`."""
