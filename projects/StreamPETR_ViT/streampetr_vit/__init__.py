"""StreamPETR with an EVA-02 ViT backbone, as a detectron2 project."""
