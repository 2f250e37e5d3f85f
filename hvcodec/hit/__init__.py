"""Information traded between the latents of a hierarchical VAE: models, theory, experiment.

The rate of a hierarchical VAE is one number per layer if its posteriors go from the top down, and each
of these rates can be weighted on its own (Xiao & Bamler, "Trading Information between Latents in
Hierarchical Variational Autoencoders", ICLR 2023). Here are the models of that paper's kind and what it
takes to ask which layer's rate a task needs:

    theory.py       bounds on tasks from rates, and estimates of information
    toy.py          a model small enough to enumerate, where identities are exact
    models.py       free top-down, ladder, general; a bottom-up one as the negative control
    objective.py    distortion and rates of a batch
    data.py         MNIST and CIFAR-10
    train.py        a cell of the grid -> a trained model
    classifier.py   what samples and reconstructions are judged by
    metrics.py      a trained model    -> its numbers
    grid.py         cells, spread over processes or machines
    disk.py         rates as bytes, by `hvcodec.coding`
    exact.py, trends.py (checks.py)
                    acceptance checks
    report.py       pictures, and a page of them

Latents are listed coarse first, z_L .. z_1, and so is all that belongs to them. Rates are in nats per
picture. It needs `pip install hvcodec[hit]`; nothing in the codec imports it.
"""
