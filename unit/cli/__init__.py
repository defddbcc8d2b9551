"""The command line: a module for each verb, with its parser and `run(arguments) -> exit status`."""

VERBS = {
    "check": "check two folders of images for problems before training",
    "train": "train on two folders of images",
    "translate": "translate images with a trained model",
    "interpolate": "walk between two images through the code",
    "export": "write one direction of a model as an ONNX file",
    "verify": "say what images and videos tell about how they were made",
    "importance": "measure which weights matter, for fine-tuning that remembers",
    "evaluate": "measure a trained model on held-out images",
    "card": "write a model card for the Hugging Face Hub",
    "report": "write an HTML report of a run",
    "serve": "translate images over HTTP, with a page for browsers",
    "adapt": "classify digits of one set with the labels of another",
    "streets": "write the synthetic streets as folders of images",
    "earth": "write satellite photographs and a relief map as folders of images",
    "shards": "pack a folder of images into WebDataset shards",
    "completion": "print a completion script for a shell",
}
