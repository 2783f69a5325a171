"""Other people's formats of labels: into the layout of `sapiens2.data.labelled`, and out of the 308 keypoints."""
