"""What is wrong with a data set: contested labels, copies, leaks and outliers."""
