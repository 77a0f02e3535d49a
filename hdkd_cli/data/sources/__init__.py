"""Where images come from: named, labelled images before they are split.

base       what every source gives; images in memory and in files
folders    a folder per class
cifar      the authors' files, or folders
digits     the bundled data set
"""
