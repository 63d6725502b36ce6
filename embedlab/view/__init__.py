"""Looking at what a sweep has made: contact sheet, gallery, film, and a picture made again."""
