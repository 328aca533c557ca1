"""Training in several processes: replicas of the network, and its two towers."""
