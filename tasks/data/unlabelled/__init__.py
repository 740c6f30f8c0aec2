"""Images without labels, for pretraining: what lies at a path is recognised, said, and read sample by sample.

images.py     the shape of such a set: length, samples, layout in words, digest
recognise.py  which layout is it? `open_images` and `open_sensors` are the doors
hdf5.py       DEO's file: dataset `images`, [n, 13, H, W]
geotiff.py    folders of multispectral or RGB images; which band is which
fmow.py       fMoW-Sentinel and fMoW-RGB as distributed, and the two rules that pair them
sensors.py    one place seen by several sensors: MSC-France, Multi-View Ile-de-France, twins of two folders
"""
