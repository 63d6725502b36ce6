"""An axis of a sweep as a film: by constant steps of the setting, or by equal steps of what is seen; or kept steps.

A sweep's folder → `tracks.read_tracks` → `render.render_films` → `video.write_films` → GIF and MP4.
"""
