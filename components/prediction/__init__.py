"""Prediction over folders, archives and videos: pictures, boxes and a task model put together, here or on Ray."""
