def is_autoencoder_kl(path):
    return False


def read_autoencoder_kl(path):
    raise NotImplementedError
