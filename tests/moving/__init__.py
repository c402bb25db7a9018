"""Moving data between stores, into files and to brokers."""
