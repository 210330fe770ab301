"""The playground: the four tasks on a web page served by Streamlit. Needs the extra "playground"."""
