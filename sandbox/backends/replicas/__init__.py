"""Replicas: a backend that spreads calls over copies of a backend in other processes.

`pool` chooses a replica for each call and survives the death of replicas. `processes` reaches
replicas in child processes, `actors` those on a Ray cluster. `server` answers calls within a
replica, and `messages` are what travels between both sides.
"""
