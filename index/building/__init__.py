"""The features of a training set, written to disk: reader → extractor → writer, restartable."""
