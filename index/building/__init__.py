"""How the features of a training set come to lie on disk: in one pass, restartable, incremental."""
