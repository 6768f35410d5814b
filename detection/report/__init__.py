"""What a run leaves for people: figures, tables, files of detections, pictures, one HTML page."""
